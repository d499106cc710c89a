"""The same defect in consecutive frames of a moving web is one thing, with a beginning and an end."""
