"""The steps of a run, each resumable from its folder."""
