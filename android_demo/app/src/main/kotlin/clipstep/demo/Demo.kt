package clipstep.demo

import android.graphics.Bitmap
import android.net.Uri
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.util.Log
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.Engine
import clipstep.runtime.Progress
import clipstep.runtime.StepModel
import clipstep.runtime.YuvImage
import java.io.Closeable
import java.io.File
import java.io.IOException
import java.util.concurrent.CancellationException

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
    private val notes = application.notes
    private val settings = PreferenceStore(application)
    private val painter = Painter()

    var show: (Screen) -> Unit = {}
    var preview: (Bitmap) -> Unit = {}

    /** The video's last picture, for a screen that was turned in a pause. */
    var picture: Bitmap? = null
        private set

    /** How the video plays. */
    val playing = Playing()

    /** The predictions of the present source so far. */
    val timeline = Timeline()

    /** Called after a prediction was added to [timeline], or all were removed. */
    var logged: () -> Unit = {}

    /** Where a camera shows its pictures. */
    var target = PreviewTarget { _, _, _ -> }

    /** Whether a source runs, or will once a model is loaded. Main thread only. */
    var isRunning = false
        private set

    /** The present state of the screen. Main thread only. */
    var screen = Screen()
        private set

    /** What the user prefers. Set by the main thread. */
    @Volatile
    private var preferences = preferencesAfter(notes.refused)

    // Used by the worker thread only.
    private var loaded: Loaded? = null

    // Used by the main thread only.
    private var source: FrameSource? = null
    private var wanted = 0 // Counts starts and stops, so that requests from before the last one are dropped.
    private var displayDegrees = 0

    @Volatile
    private var transfer: Transfer? = null

    init {
        val (engine, threads) = preferences
        worker.post {
            update { copy(status = text(R.string.installing)) }
            val refused = notes.refused
            val problem = guarded { store.unpack() }
            guarded { begin(refused, engine, threads) }
            if (loaded == null) update { copy(lack = Lack.MODEL) }
            val told = problem ?: refused?.let { store.inWords(text(R.string.ended, it)) }
            if (told != null) update { copy(message = told) }
        }
    }

    /** Loads the bundle that was shown last, unless it is [refused] because the app ended while it loaded that one. */
    private fun begin(refused: String?, engine: String, threads: Int) {
        val bundles = store.bundles()
        val file = bundles.firstOrNull { it.name == notes.bundle } ?: bundles.firstOrNull() ?: return update { copy(status = "") }
        val usable = engineFor(Bundle.open(file), engine)
        if (refused == notes.attempt(file.name, usable)) update { copy(status = "") } else load(file, usable, threads)
    }

    /** Returns what the user prefers; but if the app ended with an engine, which is then [refused], the one before is in its place again. */
    private fun preferencesAfter(refused: String?): Preferences {
        val chosen = settings.value
        if (refused == null) return chosen
        return chosen.copy(engine = notes.engine, threads = notes.threads).also { settings.value = it }
    }

    /** Starts the camera numbered [turn]. A bundle must be loaded. */
    fun startCamera(turn: Int) {
        playing.forget()
        picture = null
        start(turn) { spec -> application.camera(turn, spec.fps, spec.shape[1], target) }
    }

    /** Plays a video, from where it was if it is the one before; see [Playing.begin]. */
    fun startVideo(uri: Uri) {
        stop()
        playing.begin(uri)
        start(uri) { application.video(uri, playing.now ?: Playback()).also(playing::attach) }
    }

    /** Pauses the video, goes on, or plays it again that has ended. */
    fun togglePlaying() {
        playing.toggle()
        change { copy(status = if (playing.now?.isPaused == true) text(R.string.status_paused) else text(R.string.status_video)) }
    }

    /** Starts what [open] returns, with a new timeline if it is not the [source] before, such as a camera after the app was in the background. */
    private fun start(source: Any, open: (clipstep.runtime.Input) -> FrameSource) {
        stop()
        isRunning = true
        change { copy(message = null, reason = null, lack = null) }
        val asked = wanted
        worker.post {
            val spec = loaded?.spec ?: return@post
            loaded?.recogniser?.reset()
            val waiting = text(R.string.waiting, spec.input.frames * spec.input.frameStride)
            val what = listOf(source, loaded?.bundle?.path)
            main.post {
                if (asked != wanted) return@post
                change { copy(status = text(R.string.status_wait), top = emptyList(), speed = waiting) }
                val opened = open(spec.input).apply { turn(displayDegrees) }
                if (timeline.of != what) timeline.clear(what, spec.input, isFile = !opened.isLive)
                logged()
                this.source = opened
                opened.start(worker, Sink(opened))
            }
        }
    }

    /** Releases the camera. Nothing runs after this until the next start. */
    fun stop() {
        wanted++
        isRunning = false
        source?.stop()
        source = null
        playing.detach()
    }

    /** Handles a rotation of the display to [degrees]: of a camera a new video starts, because its earlier frames have another orientation. A file's do not turn. */
    fun turn(degrees: Int) {
        if (degrees == displayDegrees) return
        displayDegrees = degrees
        source?.turn(degrees)
        if (source?.isLive == true) worker.post { loaded?.recogniser?.reset() }
    }

    /** Handles a refused permission for the camera. */
    fun refuse() = change { copy(lack = lack ?: Lack.PERMISSION) }

    /** Goes on with what the user prefers now. If the model does not run so, it runs as before, and so the settings say. */
    fun settle() {
        val now = settings.value
        if (now == preferences) return
        preferences = now
        worker.post {
            val before = loaded ?: return@post
            if (guarded { settle(before, now) } != null) loaded?.let { goesOn(it, now) }
        }
    }

    private fun settle(before: Loaded, now: Preferences) {
        val engine = engineFor(before.bundle, now.engine)
        if (engine == before.engine && now.threads == before.threads) before.use(now) else load(before.bundle.path, engine, now.threads)
    }

    private fun goesOn(model: Loaded, refused: Preferences) = main.post {
        preferences = refused.copy(engine = model.engine, threads = model.threads)
        settings.value = preferences
        change { copy(message = text(R.string.settings_failed, refused.engine, application.threads(refused.threads))) }
    }

    /** Switches to the bundle of that name, in the same engine if the bundle has an artifact for it. */
    fun use(name: String) = loadFound { _, _ -> store.find(name) }

    /** Opens a bundle folder that was chosen in the file picker. */
    fun open(tree: Uri) = receive { engine, threads, transfer -> store.import(tree, transfer) { prove(it, engine, threads, transfer) } }

    /** Asks the user whether to open a pack that another app gives: it runs in this app, and takes the place of a bundle of its name. */
    fun offer(document: Uri) {
        worker.post {
            guarded {
                val given = given(application.contentResolver, document)
                update { copy(coming = Coming(text(R.string.offered, given.name, given.bytes / 1e6), offered = document)) }
            }
        }
    }

    /** Opens a pack that was chosen in the file picker, or that another app gives. */
    fun openPack(document: Uri) = receive { engine, threads, transfer -> store.importPack(document, transfer) { prove(it, engine, threads, transfer) } }

    /** Ends the import that runs, of which nothing is kept, or declines what another app gives. */
    fun cancel() {
        transfer?.cancel()
        change { copy(coming = null) }
    }

    private fun receive(import: (String, Int, Transfer) -> File) {
        val now = store.transfer { permille -> update { copy(coming = coming?.copy(permille = permille)) } }
        transfer?.cancel()
        transfer = now
        change { copy(coming = Coming(text(R.string.copying))) }
        loadFound { engine, threads ->
            try {
                import(engine, threads, now)
            } finally {
                update { copy(coming = coming?.takeIf { transfer !== now }) }
            }
        }
    }

    private fun loadFound(find: (String, Int) -> File) {
        val (engine, threads) = preferences
        change { copy(message = null, reason = null) }
        worker.post {
            guarded {
                val file = find(engine, threads)
                load(file, engineFor(Bundle.open(file), engine), threads)
            }
        }
    }

    override fun close() {
        stop()
        show = {}
        worker.post { unload() }
        thread.quitSafely()
    }

    /** Runs the golden steps of a bundle that is not kept yet, beside the one that is shown. */
    private fun prove(file: File, wanted: String, threads: Int, transfer: Transfer) {
        val opened = Bundle.open(file)
        val engine = engineFor(opened, wanted)
        update { copy(coming = coming?.copy(text = text(R.string.proving))) }
        notes.attempt(opened, engine) { loaded(opened, engine, threads, transfer).close() }
    }

    /**
     * Loads a bundle in place of the one before, which is closed first, because ExecuTorch has one thread pool a process. If this fails, the one before
     * is loaded again.
     */
    private fun load(file: File, engine: String, threads: Int) {
        val before = loaded
        update { copy(status = text(R.string.loading, file.name.removeSuffix(SUFFIX)), what = "", check = "", top = emptyList(), speed = "") }
        val opened = Bundle.open(file)
        checkRuns(opened, engine)
        unload()
        try {
            val next = notes.attempt(opened, engine) { loaded(opened, engine, threads) }
            loaded = next
            notes.showed(next)
            val (engines, classes) = enginesFor(opened) to opened.manifest.labels.size
            update { copy(status = "", what = next.toString(), check = next.checked, engines = engines, classes = classes, bundle = file.name, lack = lack.takeIf { it != Lack.MODEL }) }
        } finally {
            if (loaded == null && before != null) loaded = loaded(before.bundle, before.engine, before.threads)
        }
        main.post { onReady() }
    }

    private fun loaded(opened: Bundle, engine: String, threads: Int, transfer: Transfer? = null): Loaded {
        val model = StepModel.load(opened, Engine.named(engine), threads)
        try {
            val progress = Progress { step, steps ->
                transfer?.at(step, steps)
                update { copy(status = text(R.string.checking, step, steps)) }
            }
            val checked = notes.proven(opened, model, engine, progress) { steps, error -> text(R.string.checked, steps, error) }
            return Loaded(opened, engine, threads, model, checked, preferences)
        } catch (error: RuntimeException) { // A ClipstepException, or the user cancelled it.
            model.close()
            throw error
        }
    }

    /** Called on the main thread once a model is loaded. */
    var onReady: () -> Unit = {}

    private fun unload() {
        loaded?.close()
        loaded = null
    }

    /** Runs an action, and returns the sentence that tells why it failed, after it is on the screen; null if it did not. */
    private fun guarded(action: () -> Unit): String? = try {
        action()
        null
    } catch (error: ClipstepException) {
        fail(text(R.string.model_failed), error, store.inWords(error.message.orEmpty()))
    } catch (error: IOException) {
        fail(reason(error), error)
    } catch (_: CancellationException) {
        fail(null, null)
    } catch (error: SecurityException) {
        fail(text(R.string.not_copied, error.message.orEmpty()), error)
    } catch (error: OutOfMemoryError) { // What a bundle says of its sizes may be more than a phone has.
        fail(text(R.string.no_memory), error)
    }

    private fun reason(error: IOException): String = when {
        error is NoRoom -> text(R.string.no_room, error.neededBytes / 1e6, error.freeBytes / 1e6)
        BundleStore.isNoSpace(error) -> text(R.string.no_space)
        else -> text(R.string.not_copied, error.message.orEmpty())
    }

    /** Says why an action failed; null if the user cancelled it. */
    private fun fail(sentence: String?, error: Throwable?, reason: String? = null): String? {
        if (sentence != null) Log.e(TAG, reason ?: sentence, error)
        val now = loaded
        val told = if (reason != null && now != null) text(R.string.model_before, now.bundle.path.name.removeSuffix(SUFFIX)) else sentence
        val (what, check) = now?.toString().orEmpty() to now?.checked.orEmpty()
        update { copy(status = "", message = told, reason = reason, what = what, check = check) }
        return sentence
    }

    private fun text(id: Int, vararg values: Any): String = application.getString(id, *values)

    private fun update(change: Screen.() -> Screen) {
        main.post { change(change) }
    }

    private fun change(change: Screen.() -> Screen) {
        screen = screen.change()
        show(screen)
    }

    private inner class Sink(private val from: FrameSource) : FrameSink {
        private var gaps = 0
        private var lastUs = 0L

        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) {
            lastUs = timestampNs / 1000
            guarded {
                val recogniser = loaded?.recogniser ?: return@guarded
                val reading = recogniser.accept(image, rotation, timestampNs, from.isLive)
                if (!from.showsItself) recogniser.seen?.let { frame -> painter.paint(frame) { picture -> main.post { if (source === from) shown(picture) } } }
                if (reading != null) show(recogniser, reading) else if (recogniser.gaps > gaps) showGap(recogniser)
                gaps = recogniser.gaps
            }
        }

        private fun shown(picture: Bitmap) {
            this@Demo.picture = picture
            preview(picture)
            playing.moved()
        }

        private fun show(recogniser: Recogniser, reading: Reading) {
            val timeUs = lastUs
            val lines = listOf(text(R.string.speed, reading.stepMs, reading.realTimeFactor, from.missed)) + breaks(recogniser)
            val status = status(reading)
            main.post {
                if (source !== from) return@post
                val now = if (playing.now?.isPaused == true) text(R.string.status_paused) else status // It was paused during the step.
                change { copy(status = now, top = reading.top, speed = lines.joinToString("\n")) }
                reading.top.firstOrNull()?.let { timeline.add(it, timeUs, reading.step) }
                logged()
            }
        }

        private fun status(reading: Reading): String = text(
            when {
                reading.realTimeFactor < 1 -> R.string.status_slow
                from.missed > 0 -> R.string.status_missed
                from.isLive -> R.string.status_live
                else -> R.string.status_video
            },
        )

        /** The predictions so far are of another video than the next ones. */
        private fun showGap(recogniser: Recogniser) {
            val lines = listOf(text(R.string.waiting, recogniser.frames)) + breaks(recogniser)
            updateFrom { copy(status = text(R.string.status_gap), top = emptyList(), speed = lines.joinToString("\n")) }
        }

        private fun breaks(recogniser: Recogniser): List<String> = listOfNotNull(
            text(R.string.gaps, recogniser.frames, recogniser.gaps).takeIf { recogniser.gaps > 0 },
            text(R.string.pauses, LONGEST_PAUSE_S, recogniser.pauses).takeIf { recogniser.pauses > 0 },
        )

        /** Its states are those of a new video, so that no prediction is of frames from before and after a seek. */
        override fun anew() {
            loaded?.recogniser?.reset()
            updateFrom { copy(status = text(if (playing.now?.isPaused == true) R.string.status_paused else R.string.status_wait), top = emptyList()) }
        }

        override fun finished() {
            guarded { loaded?.recogniser?.run { finish()?.let { show(this, it) } } }
        }

        override fun ended() {
            updateFrom { copy(status = text(R.string.video_ended), speed = "$speed\n${text(R.string.video_ended)}".trim()) }
            main.post { if (source === from) playing.ended() }
        }

        override fun absent() = end { copy(status = "", lack = Lack.CAMERA, speed = "") }

        override fun failed(sentence: String) {
            Log.e(TAG, sentence)
            end { copy(status = "", message = sentence, reason = null, speed = "") }
            main.post { if (source === from) playing.forget() }
        }

        private fun end(change: Screen.() -> Screen) {
            main.post {
                if (source !== from) return@post
                isRunning = false
                change(change)
            }
        }

        private fun updateFrom(change: Screen.() -> Screen) {
            main.post { if (source === from) change(change) }
        }
    }
}
