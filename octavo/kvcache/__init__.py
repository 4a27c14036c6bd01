"""Where past keys and values live: who holds a page, which prefix it holds, the numbers."""
