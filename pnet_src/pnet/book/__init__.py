"""The book: figures, tables, running notebooks, released results, the site."""
