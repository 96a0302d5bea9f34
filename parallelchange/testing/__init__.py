"""For the tests of an app: a pytest plugin that gives databases in every state of a change, and records statements."""
