"""What Prometheus and a service manager ask a station over HTTP: /metrics, /healthz, /readyz."""
