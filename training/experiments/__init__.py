"""Reproduction of claimed results: measures, studies, tables, figures."""
