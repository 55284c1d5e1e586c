package clipstep.demo

import android.content.Context
import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.util.Log
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.GoldenSteps
import clipstep.runtime.StepModel
import clipstep.runtime.YuvImage
import clipstep.runtime.checkGolden
import java.io.Closeable
import java.io.File
import java.io.IOException

internal const val TAG = "clipstep"

/**
 * The model of the main screen: its state and actions, without views. It survives the activity when the screen is rotated.
 *
 * All work is done on one worker thread; [show] and [preview] are called on the main thread.
 */
class Demo(private val application: DemoApplication) : Closeable {
    private val main = Handler(Looper.getMainLooper())
    private val thread = HandlerThread("clipstep").apply { start() }
    private val worker = Handler(thread.looper)
    private val store = BundleStore(application)
    private val notes = application.getSharedPreferences("demo", Context.MODE_PRIVATE)
    private val painter = Painter()

    var show: (Screen) -> Unit = {}
    var preview: (Bitmap) -> Unit = {}

    /** The present state of the screen. Main thread only. */
    var screen = Screen(engine = notes.getString("engine", null) ?: "onnxruntime", threads = notes.getInt("threads", 1))
        private set

    // Used by the worker thread only.
    private var bundle: Bundle? = null
    private var model: StepModel? = null
    private var recogniser: Recogniser? = null

    // Used by the main thread only.
    private var source: FrameSource? = null
    private var wanted = 0 // Counts starts and stops, so that requests from before the last one are dropped.
    private var displayDegrees = 0

    init {
        val (engine, threads) = screen.engine to screen.threads
        worker.post {
            guarded {
                update { copy(what = text(R.string.installing)) }
                store.unpack()
                val file = notes.getString("bundle", null)?.let(::File)?.takeIf { it.isDirectory } ?: store.bundles().firstOrNull()
                if (file == null) update { copy(what = "", message = text(R.string.no_bundle)) } else load(file, engine, threads)
            }
        }
    }

    /** Starts the camera numbered [turn]. */
    fun startCamera(turn: Int) = start { spec -> application.camera(turn, spec.fps, spec.shape[1]) }

    /** Plays a video. */
    fun startVideo(uri: Uri) = start { application.video(uri) }

    private fun start(open: (clipstep.runtime.Input) -> FrameSource) {
        stop()
        change { copy(message = null, asksForCamera = false) }
        val asked = wanted
        worker.post {
            val spec = model?.spec ?: return@post
            recogniser?.reset()
            val waiting = text(R.string.waiting, spec.input.frames * spec.input.frameStride)
            main.post {
                if (asked != wanted) return@post
                change { copy(top = emptyList(), speed = waiting) }
                val opened = open(spec.input).apply { turn(displayDegrees) }
                source = opened
                opened.start(worker, Sink(opened))
            }
        }
    }

    /** Releases the camera. Nothing runs after this until the next start. */
    fun stop() {
        wanted++
        source?.stop()
        source = null
    }

    /** Handles a rotation of the display to [degrees]: a new video starts, because earlier frames have another orientation. */
    fun turn(degrees: Int) {
        if (degrees == displayDegrees) return
        displayDegrees = degrees
        source?.turn(degrees)
        worker.post { recogniser?.reset() }
    }

    /** Handles a refused permission for the camera. */
    fun refuse() = change { copy(message = text(R.string.refused), asksForCamera = true) }

    /** Switches to another engine or number of threads. */
    fun choose(engine: String, threads: Int) {
        if (engine == screen.engine && threads == screen.threads) return
        change { copy(engine = engine, threads = threads) }
        worker.post { guarded { bundle?.let { load(it.path, engine, threads) } } }
    }

    /** Opens a bundle folder that was chosen in the file picker. */
    fun open(tree: Uri) = openWith { store.import(tree) }

    /** Opens a pack that was chosen in the file picker. */
    fun openPack(document: Uri) = openWith { store.importPack(document) }

    private fun openWith(import: () -> File) {
        val (engine, threads) = screen.engine to screen.threads
        worker.post {
            guarded {
                update { copy(message = null) }
                load(import(), engine, threads)
            }
        }
    }

    override fun close() {
        stop()
        show = {}
        worker.post { unload() }
        thread.quitSafely()
    }

    private fun load(file: File, engine: String, threads: Int) {
        update { copy(what = text(R.string.loading, file.name), check = "", top = emptyList(), speed = "") }
        val opened = Bundle.open(file)
        val loaded = StepModel.load(opened, engine, threads)
        try {
            val checked = check(opened, loaded, engine)
            unload()
            bundle = opened
            model = loaded
            recogniser = Recogniser(loaded)
            notes.edit().putString("bundle", file.path).putString("engine", engine).putInt("threads", threads).apply()
            val what = describe()
            update { copy(what = what, check = checked, message = null, engine = engine, threads = threads) }
        } catch (error: ClipstepException) {
            loaded.close()
            throw error
        }
        main.post { onReady() }
    }

    /** Called on the main thread once a model is loaded. */
    var onReady: () -> Unit = {}

    /** Checks the golden steps when a bundle is first run in an engine, and remembers the result. */
    private fun check(opened: Bundle, loaded: StepModel, engine: String): String {
        val key = "checked ${opened.manifestSha256} $engine"
        notes.getString(key, null)?.let { return it }
        val golden = GoldenSteps.of(opened)
        val errors = checkGolden(loaded, golden) { step -> update { copy(check = text(R.string.checking, step, golden.steps)) } }
        return text(R.string.checked, errors.steps, errors.relative).also { notes.edit().putString(key, it).apply() }
    }

    private fun unload() {
        recogniser?.close()
        model?.close()
        recogniser = null
        model = null
    }

    private fun guarded(action: () -> Unit) {
        try {
            action()
        } catch (error: ClipstepException) {
            fail(store.inWords(error.message.orEmpty()), error)
        } catch (error: IOException) {
            fail(if (BundleStore.isNoSpace(error)) text(R.string.no_space) else text(R.string.not_copied, error.message.orEmpty()), error)
        } catch (error: SecurityException) {
            fail(text(R.string.not_copied, error.message.orEmpty()), error)
        }
    }

    private fun fail(sentence: String, error: Throwable?) {
        Log.e(TAG, sentence, error)
        val engine = notes.getString("engine", null) ?: "onnxruntime"
        val threads = notes.getInt("threads", 1)
        val what = describe()
        update { copy(message = sentence, what = what, engine = engine, threads = threads) }
    }

    private fun describe(): String = model?.let { "${bundle?.manifest?.name}: ${it.description}" }.orEmpty()

    private fun text(id: Int, vararg values: Any): String = application.getString(id, *values)

    private fun update(change: Screen.() -> Screen) {
        main.post { change(change) }
    }

    private fun change(change: Screen.() -> Screen) {
        screen = screen.change()
        show(screen)
    }

    private inner class Sink(private val from: FrameSource) : FrameSink {
        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) = guarded {
            val recogniser = recogniser ?: return@guarded
            val reading = recogniser.accept(image, rotation, timestampNs, from.isLive)
            recogniser.seen?.let { frame -> painter.paint(frame) { picture -> main.post { if (source === from) preview(picture) } } }
            if (reading != null) show(reading)
        }

        private fun show(reading: Reading) = updateFrom {
            copy(top = reading.top, speed = text(R.string.speed, reading.stepMs, reading.realTimeFactor, reading.missed))
        }

        override fun ended() = updateFrom { copy(speed = "$speed\n${text(R.string.video_ended)}".trim()) }

        override fun failed(sentence: String) {
            Log.e(TAG, sentence)
            updateFrom { copy(message = sentence, speed = "") }
        }

        private fun updateFrom(change: Screen.() -> Screen) {
            main.post { if (source === from) change(change) }
        }
    }
}
