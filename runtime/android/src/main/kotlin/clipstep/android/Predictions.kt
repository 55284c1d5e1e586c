@file:JvmName("Predictions")

package clipstep.android

import clipstep.runtime.Prediction
import clipstep.runtime.StepModel
import clipstep.runtime.Stream
import clipstep.runtime.YuvConverter
import java.io.Closeable
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.flow.update

/**
 * What a live stream lost: frames that were [missed], because steps or the collector took too long, and how often a gap of more than a subclip, or a step
 * back, started the predictions anew; see [Stream.restarts].
 */
public data class FrameCounts(public val missed: Long = 0, public val restarts: Int = 0)

/**
 * Returns the predictions of a model for a live [source], one every T frames at the rate of the training videos.
 *
 * Each collection opens the source, and closes it and its stream at its end, also when it is cancelled or fails; the model stays open. Steps run on
 * [Dispatchers.Default]. Frames that the rate does not need are not converted. Predictions are not queued for a slow collector: while it
 * takes one, the next is computed, [WAITING_FRAMES] frames wait, and the others are missed. After a frame of another rotation a new video starts.
 *
 * It fails with what the source tells [FrameSink.fail], or with the [clipstep.runtime.ClipstepException] of a step.
 *
 * @param smoothing the weight of earlier probabilities in each prediction's; see [StepModel.stream].
 * @param counts is set to what was lost in this collection so far.
 */
public fun predictions(
    model: StepModel, source: FrameSource, smoothing: Float = 0f, counts: MutableStateFlow<FrameCounts> = MutableStateFlow(FrameCounts()),
): Flow<Prediction> = flow {
    counts.value = FrameCounts()
    Waiting(counts).use { waiting ->
        LiveStream(model.stream(smoothing), counts).use { stream ->
            source.open(waiting).use {
                for (frame in waiting.frames) stream.push(waiting.taken(frame))?.let { emit(it) }
            }
            stream.flush()?.let { emit(it) }
        }
    }
}.buffer(Channel.RENDEZVOUS).flowOn(Dispatchers.Default)

/** The frames that wait for a step. */
private class Waiting(private val counts: MutableStateFlow<FrameCounts>) : FrameSink, Closeable {
    private val room = WaitingRoom()
    val frames = Channel<LiveFrame>(Channel.UNLIMITED) { it.close() } // The room is what limits it.

    override fun offer(frame: LiveFrame) {
        if (room.enter()) {
            if (frames.trySend(frame).isFailure) frame.close() // The collection ended meanwhile.
            return
        }
        frame.close()
        counts.update { it.copy(missed = room.missed) }
    }

    fun taken(frame: LiveFrame): LiveFrame = frame.also { room.leave() }

    override fun end() {
        frames.close()
    }

    override fun fail(error: Exception) {
        frames.close(error)
    }

    override fun close() = frames.cancel()
}

/** A stream that takes a camera's frames as they are. */
private class LiveStream(private val stream: Stream, private val counts: MutableStateFlow<FrameCounts>) : Closeable by stream {
    private val converter = YuvConverter()
    private var rotation: Int? = null

    fun push(frame: LiveFrame): Prediction? = frame.use {
        if (rotation != null && rotation != frame.rotation) stream.reset()
        rotation = frame.rotation
        val prediction = stream.push(frame.timestampNs) { converter.convert(frame.image, frame.rotation) }
        if (stream.restarts > counts.value.restarts) counts.update { it.copy(restarts = stream.restarts) }
        prediction
    }

    fun flush(): Prediction? = stream.flush()
}
