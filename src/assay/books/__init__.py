"""Books as text: their headers, what is cut from them, their sentences, and normal forms of their words."""
