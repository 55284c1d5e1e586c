package clipstep.demo

import android.net.Uri
import android.os.Bundle

/** Where a video is, and how it plays. Times are those of the file, in microseconds; [lengthUs] is 0 if it is not known. */
data class Playback(
    val positionUs: Long = 0, val lengthUs: Long = 0, val isPaused: Boolean = false, val isLooping: Boolean = false, val hasEnded: Boolean = false,
) {
    fun save(to: Bundle) {
        to.putLong("position", if (hasEnded) 0 else positionUs)
        to.putBoolean("paused", isPaused || hasEnded) // One that has ended does not start by itself.
        to.putBoolean("looping", isLooping)
    }

    companion object {
        fun restored(from: Bundle) = Playback(from.getLong("position"), isPaused = from.getBoolean("paused"), isLooping = from.getBoolean("looping"))
    }
}

/**
 * Plays a video as the user wants. It outlives the video's source, which is stopped while the app is in the background, so that the video goes on where it was.
 * Main thread only.
 */
class Playing {
    private var uri: Uri? = null
    private var player: Player? = null

    /** How the video plays; null if there is none. */
    var now: Playback? = null
        private set

    /** Called after each change of [now]. */
    var show: (Playback?) -> Unit = {}

    /** Takes a video: the one before goes on where it was, or begins again if it had ended; another begins, as [from] says. */
    fun begin(video: Uri, from: Playback = Playback()) {
        val before = now.takeIf { uri == video } ?: from
        uri = video
        change(if (before.hasEnded) before.copy(positionUs = 0, hasEnded = false) else before)
    }

    /** There is no video any more. */
    fun forget() {
        uri = null
        player = null
        change(null)
    }

    /** Controls the source of the video until [detach]. */
    fun attach(source: Player) {
        player = source
    }

    /** The source is stopped, and its position kept. */
    fun detach() {
        if (now?.hasEnded == false) moved()
        player = null
    }

    /** A frame was shown. */
    fun moved() {
        val (player, before) = (player ?: return) to (now ?: return)
        change(before.copy(positionUs = player.positionUs, lengthUs = player.lengthUs, hasEnded = false))
    }

    /** The source has shown all of its frames. */
    fun ended() {
        moved()
        now?.let { change(it.copy(positionUs = maxOf(it.positionUs, it.lengthUs), hasEnded = true)) }
    }

    /** Pauses, goes on, or plays a video again that has ended. */
    fun toggle() {
        val before = now ?: return
        if (before.hasEnded) return seek(0)
        player?.isPaused = !before.isPaused
        change(before.copy(isPaused = !before.isPaused))
    }

    fun toggleLoop() {
        val before = now ?: return
        player?.isLooping = !before.isLooping
        change(before.copy(isLooping = !before.isLooping))
    }

    /** Goes to a time of the file. A video that has ended plays on from there. */
    fun seek(positionUs: Long) {
        val before = now ?: return
        if (before.hasEnded) player?.isPaused = false
        player?.seek(positionUs)
        change(before.copy(positionUs = positionUs, isPaused = before.isPaused && !before.hasEnded, hasEnded = false))
    }

    private fun change(to: Playback?) {
        now = to
        show(to)
    }
}
