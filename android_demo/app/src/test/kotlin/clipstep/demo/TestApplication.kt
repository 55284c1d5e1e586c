package clipstep.demo

import android.net.Uri
import android.os.Handler

/** The app with scripted frames in place of a camera and a decoder, and measuring in this process. */
class TestApplication : DemoApplication() {
    /** The sources that were asked for, the newest last. */
    val sources = mutableListOf<ScriptedSource>()

    /** Whether the phone's own camera and decoder are used. */
    var real = false
    var failure: String? = null

    /** When the scripted frames are, in nanoseconds: 29.97 a second. */
    var times: (Int) -> Long = { 1 + it * 33_366_700L }

    override fun camera(turn: Int, fps: Double, size: Int, target: PreviewTarget): FrameSource =
        if (real) super.camera(turn, fps, size, target) else scripted("camera $turn", true)

    override fun video(uri: Uri): FrameSource = if (real) super.video(uri) else scripted("video $uri", false)

    override fun measurer(main: Handler): Measurer = LocalMeasurer(main, failure)

    private fun scripted(name: String, isLive: Boolean) = ScriptedSource(name, isLive, times).also { sources += it }
}

/** The real video's frames, as fast as they are taken. */
class ScriptedSource(val name: String, override val isLive: Boolean, private val times: (Int) -> Long) : FrameSource {
    @Volatile
    var given = 0

    @Volatile
    var stopped = false

    @Volatile
    var degrees = 0

    override fun start(worker: Handler, sink: FrameSink) {
        worker.post { give(worker, sink) }
    }

    private fun give(worker: Handler, sink: FrameSink) {
        if (stopped) return
        if (given == Prepared.frames.size) return sink.ended()
        sink.frame(Prepared.frames[given], 0, times(given))
        given++
        worker.post { give(worker, sink) }
    }

    override fun turn(degrees: Int) {
        this.degrees = degrees
    }

    override fun stop() {
        stopped = true
    }
}

/** [measure] on a thread of this process. */
class LocalMeasurer(private val main: Handler, private val failure: String?) : Measurer {
    @Volatile
    private var cancelled = false

    override fun measure(task: Task, done: (Measurement) -> Unit, failed: (String) -> Unit) {
        Thread {
            val result = runCatching { failure?.let { throw IllegalStateException(it) } ?: measure(task, 1) }
            main.post { if (!cancelled) result.fold(done) { failed(it.message.orEmpty()) } }
        }.start()
    }

    override fun cancel() {
        cancelled = true
    }
}
