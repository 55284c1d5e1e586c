package clipstep.demo

import android.app.Activity
import android.app.AlertDialog
import android.content.Intent
import android.os.Bundle
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.text.format.DateUtils
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.TextView
import clipstep.runtime.ClipstepException

/**
 * The list of bundles. It is started with the name of the bundle in use as [KEY_BUNDLE], and its result has either the name of the one that the user
 * chose or, as [KEY_OPEN], what kind of file the user wants to open.
 */
class BundlesActivity : Activity() {
    private val main = Handler(Looper.getMainLooper())
    private val thread = HandlerThread("bundles").apply { start() }
    private val worker = Handler(thread.looper)
    private lateinit var store: BundleStore

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.bundles)
        showTop(R.string.bundles)
        store = BundleStore(this)
        view<Button>(R.id.folder).setOnClickListener { finishWith(KEY_OPEN, FOLDER) }
        view<Button>(R.id.pack).setOnClickListener { finishWith(KEY_OPEN, PACK) }
        list()
    }

    override fun onDestroy() {
        thread.quitSafely()
        super.onDestroy()
    }

    private fun list() {
        worker.post {
            val bundles = store.list()
            main.post { if (!isDestroyed) show(bundles) }
        }
    }

    private fun show(bundles: List<StoredBundle>) {
        val rows = view<ViewGroup>(R.id.rows)
        rows.removeAllViews()
        for (bundle in bundles) {
            val row = LayoutInflater.from(this).inflate(R.layout.bundle, rows, false)
            rows.addView(row)
            show(bundle, row)
        }
    }

    private fun show(bundle: StoredBundle, row: View) {
        val name = bundle.file.name.removeSuffix(SUFFIX)
        val isInUse = bundle.file.name == intent.getStringExtra(KEY_BUNDLE)
        row.view<TextView>(R.id.name).text = if (isInUse) getString(R.string.bundle_in_use, name) else name
        row.view<TextView>(R.id.facts).text = facts(bundle)
        if (bundle.classes != null) row.setOnClickListener { finishWith(KEY_BUNDLE, bundle.file.name) }
        bundle.problem?.let { problem -> explain(row.view(R.id.more), problem) }
        row.view<View>(R.id.delete).run {
            visibility = if (isInUse) View.GONE else View.VISIBLE
            contentDescription = getString(R.string.delete_bundle, name)
            setOnClickListener { ask(bundle, name) }
        }
    }

    private fun facts(bundle: StoredBundle): String {
        val kept = DateUtils.formatDateTime(this, bundle.keptMs, DateUtils.FORMAT_SHOW_DATE or DateUtils.FORMAT_SHOW_YEAR)
        val megabytes = bundle.bytes / 1e6
        return bundle.classes?.let { getString(R.string.bundle_facts, it, megabytes, kept) } ?: getString(R.string.bundle_broken, megabytes, kept)
    }

    /** Shows what is wrong, and what to do, to those who touch the button. */
    private fun explain(button: Button, problem: ClipstepException) {
        button.visibility = View.VISIBLE
        button.setOnClickListener { AlertDialog.Builder(this).setMessage(store.inWords(problem.message.orEmpty())).show() }
    }

    private fun ask(bundle: StoredBundle, name: String) {
        AlertDialog.Builder(this)
            .setMessage(getString(R.string.delete_bundle, name))
            .setPositiveButton(R.string.delete) { _, _ ->
                worker.post { store.delete(bundle.file) }
                list()
            }
            .setNegativeButton(R.string.cancel, null)
            .show()
    }

    private fun finishWith(key: String, value: String) {
        setResult(RESULT_OK, Intent().putExtra(key, value))
        finish()
    }

    companion object {
        const val KEY_BUNDLE = "bundle"
        const val KEY_OPEN = "open"
        const val FOLDER = "folder"
        const val PACK = "pack"
    }
}
