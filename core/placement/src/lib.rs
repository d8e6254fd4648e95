//! Pure planners over the cluster map: placement, takeover, recovery
