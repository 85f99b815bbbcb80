"""`kat-zoo plan`: what a recipe needs."""
