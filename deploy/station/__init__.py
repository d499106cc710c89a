"""What `make deploy` runs on a station, from one file: needs nothing but Python 3.8 and systemd."""
