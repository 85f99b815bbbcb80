"""Files of the page: they are served as they are."""
