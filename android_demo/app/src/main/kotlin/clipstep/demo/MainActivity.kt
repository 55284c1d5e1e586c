package clipstep.demo

import android.Manifest
import android.app.Activity
import android.content.ContentResolver
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.provider.Settings
import android.view.Display
import android.view.Surface
import android.view.View
import android.view.WindowManager
import android.widget.Button
import android.widget.ImageView

private const val ASK_CAMERA = 1
private const val PICK_VIDEO = 2
private const val PICK_BUNDLE = 3
private const val PICK_PACK = 4
private const val CHOOSE_BUNDLE = 5

/** The main screen, which shows the likeliest classes of a running camera or video, and the latency. */
class MainActivity : Activity() {
    private lateinit var views: MainViews
    private lateinit var demo: Demo
    private var video: Uri? = null
    private var camera = 0
    private var resumed = false
    private var settingsIfRefused = false

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        setContentView(R.layout.main)
        edgeToEdge()
        demo = lastNonConfigurationInstance as? Demo ?: Demo(application as DemoApplication)
        video = savedInstanceState?.getString("video")?.let(Uri::parse)
        camera = savedInstanceState?.getInt("camera") ?: 0
        video?.let { if (savedInstanceState != null && lastNonConfigurationInstance == null) demo.playing.begin(it, Playback.restored(savedInstanceState)) }
        views = MainViews(this)
        PlayerViews(this, demo)
        connectButtons()
        demo.show = views::render
        demo.preview = ::show
        demo.picture?.let(::show)
        demo.target = view<CameraView>(R.id.live).apply { onShow = { showLive(true) } }
        demo.onReady = { if (resumed) startSource() }
        if (savedInstanceState == null) take(intent)
    }

    private fun show(picture: Bitmap) {
        view<ImageView>(R.id.preview).setImageBitmap(picture)
        showLive(false)
    }

    private fun showLive(isLive: Boolean) {
        view<View>(R.id.live).visibility = if (isLive) View.VISIBLE else View.GONE
        view<View>(R.id.preview).visibility = if (isLive) View.GONE else View.VISIBLE
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        take(intent)
    }

    /** Asks about a pack that another app gives. */
    private fun take(intent: Intent) {
        val document = intent.data ?: return
        if (intent.action == Intent.ACTION_VIEW && document.scheme == ContentResolver.SCHEME_CONTENT) demo.offer(document)
    }

    private fun connectButtons() {
        view<Button>(R.id.camera).setOnClickListener {
            if (video == null) camera++
            video = null
            startSource()
        }
        view<Button>(R.id.lack_action).setOnClickListener {
            when (demo.screen.lack) {
                Lack.MODEL -> pickPack()
                Lack.CAMERA -> pickVideo()
                Lack.PERMISSION -> askAgain()
                null -> Unit
            }
        }
        view<Button>(R.id.open_offered).setOnClickListener { demo.screen.coming?.offered?.let(demo::openPack) }
        view<Button>(R.id.cancel).setOnClickListener { demo.cancel() }
        view<Button>(R.id.video).setOnClickListener { pickVideo() }
        view<Button>(R.id.bundles).setOnClickListener {
            startActivityForResult(Intent(this, BundlesActivity::class.java).putExtra(BundlesActivity.KEY_BUNDLE, demo.screen.bundle), CHOOSE_BUNDLE)
        }
        view<Button>(R.id.settings).setOnClickListener { startActivity(SettingsActivity.of(this, demo.screen)) }
        view<Button>(R.id.bench).setOnClickListener { startActivity(Intent(this, BenchActivity::class.java).putExtra("bundle", demo.screen.bundle)) }
    }

    private fun askAgain() {
        settingsIfRefused = !shouldShowRequestPermissionRationale(Manifest.permission.CAMERA)
        requestPermissions(arrayOf(Manifest.permission.CAMERA), ASK_CAMERA)
    }

    override fun onResume() {
        super.onResume()
        resumed = true
        demo.turn(displayDegrees())
        service<DisplayManager>().registerDisplayListener(turned, Handler(Looper.getMainLooper()))
        views.render(demo.screen)
        views.showsVideo(video != null)
        demo.settle()
        if (!demo.isRunning) startSource()
    }

    override fun onPause() {
        resumed = false
        service<DisplayManager>().unregisterDisplayListener(turned)
        super.onPause()
    }

    /**
     * Not earlier, because beside another app the screen is seen while it is paused. A video goes on while the screen is turned or resized, and one that has ended
     * holds nothing: it stays as it is.
     */
    override fun onStop() {
        val stays = isChangingConfigurations && video != null || demo.playing.now?.hasEnded == true
        if (!stays) demo.stop()
        super.onStop()
    }

    override fun onRetainNonConfigurationInstance(): Any = demo

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString("video", video?.toString())
        outState.putInt("camera", camera)
        demo.playing.now?.save(outState)
    }

    override fun onDestroy() {
        if (!isChangingConfigurations) demo.close()
        super.onDestroy()
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<out String>, grantResults: IntArray) {
        val result = grantResults.firstOrNull() ?: return // The question was interrupted.
        if (result == PackageManager.PERMISSION_GRANTED) return startSource()
        demo.refuse()
        // Android asked the user neither before nor now: it does not ask again, and only its settings can allow the camera.
        val isFinal = settingsIfRefused && !shouldShowRequestPermissionRationale(Manifest.permission.CAMERA)
        if (isFinal) startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
        settingsIfRefused = false
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        if (resultCode != RESULT_OK || data == null) return
        if (requestCode == CHOOSE_BUNDLE) return chosen(data)
        val uri = data.data ?: return
        if (requestCode == PICK_BUNDLE) return demo.open(uri)
        if (requestCode == PICK_PACK) return demo.openPack(uri)
        video = uri
        demo.stop()
        demo.playing.forget() // The same one chosen again begins anew.
        if (resumed) startSource()
    }

    private fun chosen(data: Intent) {
        data.getStringExtra(BundlesActivity.KEY_BUNDLE)?.let { demo.use(it) }
        when (data.getStringExtra(BundlesActivity.KEY_OPEN)) {
            BundlesActivity.FOLDER -> pick(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), PICK_BUNDLE)
            BundlesActivity.PACK -> pickPack()
        }
    }

    private fun pickVideo() = pick(document("video/*"), PICK_VIDEO)

    /** Some file apps know a pack as a zip file, others as bytes. */
    private fun pickPack() = pick(document("*/*").putExtra(Intent.EXTRA_MIME_TYPES, arrayOf("application/zip", "application/octet-stream")), PICK_PACK)

    private fun document(type: String) = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type)

    private fun startSource() {
        val video = video
        views.showsVideo(video != null)
        if (demo.screen.bundle == null) return // Once one is loaded.
        when {
            video != null -> demo.startVideo(video)
            checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED -> demo.startCamera(camera)
            demo.screen.lack == Lack.PERMISSION -> Unit
            else -> {
                demo.refuse()
                requestPermissions(arrayOf(Manifest.permission.CAMERA), ASK_CAMERA)
            }
        }
    }

    private fun pick(intent: Intent, code: Int) = startActivityForResult(intent, code)

    private fun displayDegrees(): Int = when (service<DisplayManager>().getDisplay(Display.DEFAULT_DISPLAY)?.rotation) {
        Surface.ROTATION_90 -> 90
        Surface.ROTATION_180 -> 180
        Surface.ROTATION_270 -> 270
        else -> 0
    }

    private val turned = object : DisplayManager.DisplayListener {
        override fun onDisplayAdded(displayId: Int) = Unit

        override fun onDisplayRemoved(displayId: Int) = Unit

        override fun onDisplayChanged(displayId: Int) = demo.turn(displayDegrees()) // A rotation by 180 degrees does not recreate the activity.
    }
}
