"""`assay clean`: what Assay made below a place is found, shown with its size, and deleted where that is asked for."""
