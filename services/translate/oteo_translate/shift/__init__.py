"""Has it shifted, how, and what will it cost? Two-sample tests on plain arrays, so that a stream can be tested as well as a dataset."""
