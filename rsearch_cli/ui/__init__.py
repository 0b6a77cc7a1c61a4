"""What people see: progress displays, tables and reports."""
