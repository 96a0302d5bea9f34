"""A library's list of members: one app, in the version before and the version after `phone` becomes `mobile`."""
