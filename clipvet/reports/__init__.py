"""Render a report for the console, as JSON, SARIF or one HTML page: pure functions."""
