import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.serialization)
}

android {
    namespace = "clipstep.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "clipstep.demo"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = 1
        versionName = libs.versions.app.get()
    }

    // Bundles that the app is to hold: put NAME.clipstep folders here.
    sourceSets["main"].assets.srcDir(rootProject.file("bundles"))

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        allWarningsAsErrors = true
    }
}

dependencies {
    implementation(project(":clipstep-runtime"))
    implementation(libs.serialization)
    implementation(libs.onnxruntime.android)
    // The second engine adds its own native libraries; leave the line out for an app with onnxruntime alone.
    implementation(libs.executorch.android)
}
