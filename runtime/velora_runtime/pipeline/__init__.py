"""The pipeline: its threads and the frames that go through them."""
