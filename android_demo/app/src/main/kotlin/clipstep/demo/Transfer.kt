package clipstep.demo

import clipstep.runtime.Progress
import java.io.File
import java.io.IOException
import java.util.concurrent.CancellationException

private const val RESERVE_BYTES = 50_000_000L // What Android and other apps need to go on.

/** There is not enough room on this phone. */
internal class NoRoom(val neededBytes: Long, val freeBytes: Long) : IOException("$neededBytes bytes needed, $freeBytes free")

/**
 * A bundle that is being copied to [folder]: it needs room, tells how far it is, in thousandths or as null if that is not known, and ends when it is
 * cancelled. One thread copies; any may cancel.
 */
class Transfer internal constructor(private val folder: File, private val told: (Int?) -> Unit) : Progress {
    private var last: Int? = -1

    @Volatile
    private var isCancelled = false

    fun cancel() {
        isCancelled = true
    }

    /** Throws a [NoRoom] if there is no room for that many bytes. */
    fun needs(bytes: Long) {
        val free = folder.usableSpace
        if (bytes > free - RESERVE_BYTES) throw NoRoom(bytes, maxOf(free - RESERVE_BYTES, 0))
    }

    /** Throws a [CancellationException] once it is cancelled. If [total] is 0, it is not known. */
    override fun at(done: Long, total: Long) {
        if (isCancelled) throw CancellationException("cancelled")
        if (done == 0L) needs(total)
        val now = if (total > 0) (done * 1000 / total).toInt() else null
        if (now != last) told(now)
        last = now
    }
}
