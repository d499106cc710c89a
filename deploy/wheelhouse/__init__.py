"""What a station installs, made on the controller: locked, fetched and hashed there, so that it needs no internet."""
