"""The recipe of the small model that ships with the repository; see README.md beside this file."""
