package clipstep.demo

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.util.Log
import android.view.WindowManager
import android.widget.Button
import android.widget.TextView
import clipstep.runtime.ClipstepException
import java.io.File
import java.io.IOException
import kotlinx.serialization.json.Json

private const val LONGEST_MINUTES = 60

/**
 * Runs benchmarks of one bundle: the one that it is started with, or the one that the main screen showed last. They are started with a button on its
 * screen, or by adb with:
 *
 * `am start -n clipstep.demo/.BenchActivity --es out NAME [--es bundle NAME] [--es engines A,B] [--es threads 1,2] [--ei rounds N]
 * [--ei steps N] [--ei warmup N] [--es providers xnnpack,cpu] [--ez spinning true] [--ei minutes N]`
 *
 * With minutes the fastest way then runs without pause for so long, in a [LongRun], which goes on when this screen is left.
 */
class BenchActivity : Activity(), Benchmark.Listener {
    private val main = Handler(Looper.getMainLooper())
    private val thread = HandlerThread("plans").apply { start() }
    private lateinit var records: Records
    private var benchmark: Benchmark? = null
    private var isBusy = false
    private var begun = 0 // Counts beginnings and ends, so that a plan that is ready too late is dropped.
    private var name = "records"
    private var written: File? = null
    private var sustained: SustainedRecord? = null // The one on the screen, whose picture may be shared.
    private val app get() = application as DemoApplication
    private lateinit var views: BenchViews

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setContentView(R.layout.bench)
        showTop(R.string.benchmark)
        views = BenchViews(this)
        records = Records(recordsFolder(this))
        if (app.longRun?.stage != Stage.RUNNING && records.interrupted()) status(getString(R.string.bench_stopped))
        view<Button>(R.id.start).setOnClickListener { begin(Intent().putExtra("bundle", intent.getStringExtra("bundle")).putMinutes()) }
        view<Button>(R.id.cancel).setOnClickListener { if (isBusy) stopped() else app.longRun?.cancel() }
        view<Button>(R.id.share).setOnClickListener { share() }
        app.longRun?.let { attach(it) }
        began(intent, isNew = savedInstanceState == null)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        began(intent, isNew = true)
    }

    override fun onStop() {
        if (isBusy) stopped()
        if (!isChangingConfigurations) app.longRun?.leave()
        super.onStop()
    }

    private fun stopped() {
        benchmark?.cancel()
        failed(getString(R.string.bench_stopped))
    }

    override fun onDestroy() {
        app.longRun?.listener = null
        thread.quitSafely()
        super.onDestroy()
    }

    private fun began(intent: Intent, isNew: Boolean) {
        val bundle = intent.getStringExtra("bundle")?.removeSuffix(SUFFIX)
        view<TextView>(R.id.bundle).text = if (bundle == null) getString(R.string.bench_shown) else getString(R.string.bench_bundle, bundle)
        if (isNew && intent.hasExtra("out")) begin(intent) else if (!isBusy && app.longRun == null) recall(bundle)
    }

    /** Shows the last sustained run of this bundle that was written, if there is one. */
    private fun recall(name: String?) {
        show(null as Kept?)
        val turn = begun
        Handler(thread.looper).post {
            guarded({ Log.i(TAG, "no earlier test is shown: $it") }) {
                val runs = records.sustained().ifEmpty { return@guarded }
                val opened = clipstep.runtime.Bundle.open(bundle(name ?: app.notes.bundle))
                val kept = runs.firstOrNull { it.record.bundle == opened.path.name && it.record.manifestSha256 == opened.manifestSha256 }
                main.post { if (turn == begun) show(kept) }
            }
        }
    }

    private fun show(kept: Kept?) {
        kept?.let { name = it.file.nameWithoutExtension }
        views.showKept(kept)
        sustained = kept?.record
        written = kept?.file
        enable(true)
    }

    /** Makes the plan on a thread of its own, because bundles are unpacked and checked for it. */
    private fun begin(intent: Intent) {
        benchmark?.cancel()
        benchmark = null
        app.longRun?.cancel()
        app.longRun = null
        views.showLong(null)
        name = intent.getStringExtra("out").orEmpty().replace(Regex("[^A-Za-z0-9._-]"), "_").ifEmpty { "records" }
        written = null
        sustained = null
        isBusy = true
        val turn = ++begun
        enable(false)
        guarded { records.begin(name) }
        Handler(thread.looper).post {
            guarded({ sentence -> main.post { if (turn == begun) failed(sentence) } }) {
                val plan = plan(intent)
                main.post { if (turn == begun) start(plan) }
            }
        }
    }

    private fun start(plan: Plan) {
        view<TextView>(R.id.bundle).text = getString(R.string.bench_bundle, plan.bundle.path.name.removeSuffix(SUFFIX))
        benchmark = Benchmark(plan, app.measurer(main), DeviceFacts(this), this).also { it.start() }
    }

    /** The fastest way runs on, in a [LongRun] that the app holds. */
    private fun lengthen(plan: Plan, quick: List<Record>) {
        val best = fastest(quick).configuration
        val task = plan.tasks.first { it.engine == best.engine && it.threads == best.threads }
        val instruments = Instruments(app.measurer(main), DeviceFacts(app), app.thermal(), app::clockMs)
        val run = LongRun(LongPlan(name, task, 60 * plan.minutes, quick), instruments, records)
        run.whenEnded = KeepService::stop
        app.longRun = run
        KeepService.start(app)
        attach(run)
        run.start()
    }

    private fun attach(run: LongRun) {
        name = run.plan.name
        run.listener = { show(run) }
        show(run)
    }

    private fun show(run: LongRun) {
        val isRunning = run.stage == Stage.RUNNING
        views.showQuick(run.plan.quick)
        views.showLong(run)
        written = run.file
        sustained = run.record
        enable(!isRunning)
        status(if (isRunning) getString(R.string.long_begun) else ending(run))
    }

    private fun plan(intent: Intent): Plan {
        val opened = clipstep.runtime.Bundle.open(bundle(intent.getStringExtra("bundle") ?: app.notes.bundle))
        val engines = intent.getStringExtra("engines")?.split(",")?.onEach { checkRuns(opened, it) } ?: enginesFor(opened)
        return Plan(opened, engines, counts(intent), number(intent, "rounds", 5), number(intent, "steps", 20), number(intent, "warmup", 5), settings(intent), minutes(intent))
    }

    private fun settings(intent: Intent): Settings =
        Settings(intent.getStringExtra("providers")?.split(",") ?: Settings().providers, intent.getBooleanExtra("spinning", false)).also { it.engine() }

    private fun bundle(name: String?): File {
        val store = BundleStore(this).apply { unpack() }
        if (name != null) return store.find(name)
        return store.bundles().singleOrNull()
            ?: throw ClipstepException("no bundle was chosen", expected = "one of ${store.bundles().joinToString { it.name }}", fix = "choose it in the app first")
    }

    private fun counts(intent: Intent): List<Int> {
        val asked = intent.getStringExtra("threads") ?: listOf(1, 2, 4).filter { it <= Runtime.getRuntime().availableProcessors() }.joinToString(",")
        return asked.split(",").map { it.toIntOrNull() ?: throw ClipstepException("threads must be numbers", got = asked, expected = "for example 1,2,4") }
    }

    private fun number(intent: Intent, key: String, default: Int): Int =
        intent.getIntExtra(key, default).also { if (it < 1) throw ClipstepException("$key must be at least 1", got = it) }

    private fun minutes(intent: Intent): Int =
        if (!intent.hasExtra("minutes")) 0 else number(intent, "minutes", 1).also {
            if (it > LONGEST_MINUTES) throw ClipstepException("minutes must be at most $LONGEST_MINUTES", got = it)
        }

    private fun Intent.putMinutes(): Intent = views.minutes?.let {
        askToNotify()
        putExtra("minutes", it)
    } ?: this

    private fun askToNotify() {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
    }

    override fun turn(round: Int, rounds: Int, task: Task) = status(getString(R.string.bench_running, round, rounds, task.engine, threads(task.threads)))

    override fun done(records: List<Record>) = guarded {
        val plan = requireNotNull(benchmark).plan
        ended()
        if (plan.minutes > 0) return@guarded lengthen(plan, records)
        val file = this.records.write(name, records.map { Json.encodeToString(it) })
        written = file
        views.showQuick(records)
        status(getString(R.string.bench_done, file.name))
        enable(true)
    }

    override fun failed(sentence: String) {
        ended()
        Log.e(TAG, sentence)
        status(getString(R.string.bench_failed, sentence))
        enable(true)
        try {
            records.fail(name, sentence)
        } catch (error: IOException) {
            Log.e(TAG, "not even the error could be written", error)
        }
    }

    private fun ended() {
        benchmark = null
        isBusy = false
        begun++
    }

    private fun guarded(fail: (String) -> Unit = ::failed, action: () -> Unit) {
        try {
            action()
        } catch (error: ClipstepException) {
            fail(BundleStore(this).inWords(error.message.orEmpty()))
        } catch (error: IOException) {
            fail(if (BundleStore.isNoSpace(error)) getString(R.string.no_space) else error.message.orEmpty())
        }
    }

    /** Shares the numbers; after a sustained run the user may choose the picture in their place. */
    private fun share() {
        val file = written ?: return
        val record = sustained ?: return share(file)
        val choices = arrayOf(getString(R.string.share_picture), getString(R.string.share_numbers))
        AlertDialog.Builder(this).setTitle(R.string.share_what).setNegativeButton(R.string.cancel, null)
            .setItems(choices) { _, which -> if (which == 0) guarded { share(views.picture(record, File(records.folder, "$name.png"))) } else share(file) }.show()
    }

    private fun enable(free: Boolean) {
        view<Button>(R.id.start).isEnabled = free
        view<Button>(R.id.share).isEnabled = free && written != null
        views.enable(free)
    }

    private fun status(text: String) {
        view<TextView>(R.id.status).text = text
    }
}
