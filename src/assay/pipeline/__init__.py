"""A folder of books to a calibrated Siamese model, a cross-encoder and a tuned cascade, by one command that goes on."""
