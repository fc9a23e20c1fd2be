"""From a teacher to K students, offline."""
