import org.jetbrains.kotlin.gradle.dsl.JvmTarget

// The library as a module of a Gradle build, such as android_demo. Maven proves it on a computer: pom.xml.
plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "clipstep.android"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_1_8
        targetCompatibility = JavaVersion.VERSION_1_8
    }

    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all {
                it.systemProperty("clipstep.prepared", rootProject.file("../build/android").path)
                it.jvmArgs("-Xmx2g", "--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.io=ALL-UNNAMED")
                it.jvmArgs("--add-opens", "java.base/java.util=ALL-UNNAMED", "--add-opens", "java.base/java.nio=ALL-UNNAMED")
            }
        }
    }
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        allWarningsAsErrors = true
    }
}

dependencies {
    api(project(":clipstep-runtime"))
    api(libs.coroutines)

    testImplementation(libs.onnxruntime.desktop)
    testImplementation(libs.junit)
    testImplementation(libs.robolectric)
    testImplementation(libs.monitor)
}
