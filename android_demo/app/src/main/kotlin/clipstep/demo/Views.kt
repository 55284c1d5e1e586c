package clipstep.demo

import android.app.Activity
import android.content.Context
import android.view.View

/** Returns the layout's view with that id. */
internal fun <T : View> Activity.view(id: Int): T = requireNotNull(findViewById(id)) { "no view $id" }

internal fun <T : View> View.view(id: Int): T = requireNotNull(findViewById(id)) { "no view $id" }

/** Returns a system service that every phone has. */
internal inline fun <reified T : Any> Context.service(): T = requireNotNull(getSystemService(T::class.java)) { "no ${T::class.java.simpleName}" }

internal fun Context.threads(count: Int): String = if (count == 1) getString(R.string.one_thread) else getString(R.string.thread_count, count)
