"""From a climb of the ladder to a published translator: files, graphs, the sheet of pictures, the page."""
