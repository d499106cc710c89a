"""`defectd doctor`: is everything here that a station needs, and if not, what to do? It looks, and changes nothing."""
