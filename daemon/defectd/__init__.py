"""Edge inspection daemon: camera to verdict to MQTT, every unit accounted for."""

__version__ = "0.1.0"
