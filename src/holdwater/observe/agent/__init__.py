"""The part that runs inside an observed script: it counts steps, reads memory and answers questions."""
