"""The Grafana dashboards, as code: `make generate` writes them into the chart as JSON.

A dashboard is data (`panels`), rendered by the one place that knows Grafana's builders (`render`). Only that place
needs grafana-foundation-sdk, which is of the group `lint`; everything else reads the written files.
"""
