package clipstep.demo

import android.app.Activity
import android.content.Intent
import android.net.Uri
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

/**
 * Runs benchmarks of one bundle: the one that it is started with, or the one that the main screen showed last. They are started with a button on its
 * screen, or by adb with:
 *
 * `am start -n clipstep.demo/.BenchActivity --es out NAME [--es bundle NAME] [--es engines A,B] [--es threads 1,2] [--ei rounds N]
 * [--ei steps N] [--ei warmup N] [--es providers xnnpack,cpu] [--ez spinning true]`
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

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setContentView(R.layout.bench)
        showTop(R.string.benchmark)
        records = Records(recordsFolder(this))
        if (records.interrupted()) status(getString(R.string.bench_stopped))
        view<Button>(R.id.start).setOnClickListener { begin(Intent().putExtra("bundle", intent.getStringExtra("bundle"))) }
        view<Button>(R.id.share).setOnClickListener { share() }
        began(intent, isNew = savedInstanceState == null)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        began(intent, isNew = true)
    }

    override fun onStop() {
        if (isBusy) {
            benchmark?.cancel()
            failed(getString(R.string.bench_stopped))
        }
        super.onStop()
    }

    override fun onDestroy() {
        thread.quitSafely()
        super.onDestroy()
    }

    private fun began(intent: Intent, isNew: Boolean) {
        val bundle = intent.getStringExtra("bundle")?.removeSuffix(SUFFIX)
        view<TextView>(R.id.bundle).text = if (bundle == null) getString(R.string.bench_shown) else getString(R.string.bench_bundle, bundle)
        if (isNew && intent.hasExtra("out")) begin(intent)
    }

    /** Makes the plan on a thread of its own, because bundles are unpacked and checked for it. */
    private fun begin(intent: Intent) {
        benchmark?.cancel()
        benchmark = null
        name = intent.getStringExtra("out").orEmpty().replace(Regex("[^A-Za-z0-9._-]"), "_").ifEmpty { "records" }
        written = null
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
        benchmark = Benchmark(plan, (application as DemoApplication).measurer(main), DeviceFacts(this), this).also { it.start() }
    }

    private fun plan(intent: Intent): Plan {
        val opened = clipstep.runtime.Bundle.open(bundle(intent.getStringExtra("bundle") ?: (application as DemoApplication).notes.bundle))
        val engines = intent.getStringExtra("engines")?.split(",")?.onEach { checkRuns(opened, it) } ?: enginesFor(opened)
        return Plan(opened, engines, counts(intent), number(intent, "rounds", 5), number(intent, "steps", 20), number(intent, "warmup", 5), settings(intent))
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

    override fun turn(round: Int, rounds: Int, task: Task) = status(getString(R.string.bench_running, round, rounds, task.engine, threads(task.threads)))

    override fun done(records: List<Record>) = guarded {
        ended()
        val file = this.records.write(name, records)
        written = file
        view<TextView>(R.id.results).text = records.joinToString("\n") { row(it) }
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

    private fun row(record: Record): String = getString(
        R.string.bench_row, record.configuration.engine, threads(record.configuration.threads), record.percentilesMs["p50"], record.realTimeFactor,
        (record.peakMemoryBytes / 1_000_000).toInt(),
    )

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

    private fun share() {
        val file = written ?: return
        val uri = Uri.parse("content://${RecordsProvider.AUTHORITY}/${file.name}")
        val intent = Intent(Intent.ACTION_SEND).setType("application/json").putExtra(Intent.EXTRA_STREAM, uri).addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        startActivity(Intent.createChooser(intent, getString(R.string.bench_share)))
    }

    private fun enable(free: Boolean) {
        view<Button>(R.id.start).isEnabled = free
        view<Button>(R.id.share).isEnabled = free && written != null
    }

    private fun status(text: String) {
        view<TextView>(R.id.status).text = text
    }
}
