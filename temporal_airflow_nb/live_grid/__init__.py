"""live_grid."""
