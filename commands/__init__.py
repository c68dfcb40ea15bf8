"""The commands of ``canao``: each calls the floors below and prints what they give."""
