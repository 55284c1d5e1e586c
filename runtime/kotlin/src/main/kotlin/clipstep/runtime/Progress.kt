package clipstep.runtime

/** Told how far something is that takes a while. What it throws ends that. */
public fun interface Progress {
    /** Called with how much is [done], in bytes or in steps, of the [total]. */
    public fun at(done: Long, total: Long)
}
