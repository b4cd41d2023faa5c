"""One model for a room: shared where its weights are, used from where learners are."""
