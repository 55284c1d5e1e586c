package clipstep.demo

import android.app.Activity
import android.content.Context
import android.content.Intent
import android.os.Bundle
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.widget.TextView

/** What the app is, and the libraries in it with their licences. */
class AboutActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.about)
        showTop(R.string.about)
        view<TextView>(R.id.version).text = getString(R.string.version, packageManager.getPackageInfo(packageName, 0).versionName)
        val rows = view<ViewGroup>(R.id.rows)
        for (library in libraries(this)) rows.addView(row(library, rows))
    }

    private fun row(library: Library, rows: ViewGroup): View = LayoutInflater.from(this).inflate(R.layout.library, rows, false).apply {
        view<TextView>(R.id.name).text = library.name
        view<TextView>(R.id.facts).text = getString(R.string.licence_facts, library.version, library.licence)
        setOnClickListener { startActivity(LicenceActivity.of(this@AboutActivity, library)) }
    }
}

/** The licence of one library. */
class LicenceActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.licence)
        showTop(R.string.licences)
        val library = libraries(this).firstOrNull { it.module == intent.getStringExtra(KEY_MODULE) } ?: return finish()
        view<TextView>(R.id.title).text = library.name
        view<TextView>(R.id.text).text = flowing(readRaw(library.text))
    }

    companion object {
        private const val KEY_MODULE = "module"

        internal fun of(context: Context, library: Library): Intent = Intent(context, LicenceActivity::class.java).putExtra(KEY_MODULE, library.module)
    }
}
