"""From what was served yesterday to what is served today: settings, lock, the state of a run, publishing, report."""
