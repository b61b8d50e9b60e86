"""The files of a recording: words, pictures, and their writers."""
