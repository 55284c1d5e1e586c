package clipstep.demo

import android.os.Build
import android.view.View
import android.view.WindowInsets

/** Keeps a view clear of the system bars and the display cutout, under which content is drawn since target SDK 35. */
internal fun View.padForInsets() = setOnApplyWindowInsetsListener { view, insets ->
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
        view.setPadding(bars.left, bars.top, bars.right, bars.bottom)
    } else {
        padForOldInsets(view, insets)
    }
    insets
}

@Suppress("DEPRECATION")
private fun padForOldInsets(view: View, insets: WindowInsets) =
    view.setPadding(insets.systemWindowInsetLeft, insets.systemWindowInsetTop, insets.systemWindowInsetRight, insets.systemWindowInsetBottom)
