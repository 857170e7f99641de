"""The parts of a recommendation: candidates, layouts, ranking, reasons, costs."""
