"""The German interface. English is what the code says; texts that are put together are looked up before they are filled in."""

from __future__ import annotations

import bpy

from .german_tooltips import GERMAN_DETAILS

# by Blender's translation contexts: what buttons that run something say, and everything else
BUTTON, TEXT = "Operator", "*"

GERMAN_BUTTONS = {
    "Capture from Video": "Aus Video übernehmen",
    "Cancel Capture": "Aufnahme abbrechen",
    "Cancel (Esc)": "Abbrechen (Esc)",
    "Wait for a Job": "Auf einen Auftrag warten",
    "Choose Video": "Video wählen",
    "Pick Armature": "Skelett wählen",
    "Draw Subject Box": "Rahmen um das Motiv ziehen",
    "Show Sides": "Seiten zeigen",
    "Match Scene to Video": "Szene an Video anpassen",
    "Copy Conversion Command": "Umwandlungsbefehl kopieren",
    "Check Rig": "Rig prüfen",
    "Check Device": "Gerät prüfen",
    "Copy Diagnostics": "Diagnose kopieren",
    "Fix": "Beheben",
    "Use the Whole Video": "Ganzes Video verwenden",
    "Find the Subject Without the Matte": "Motiv ohne Maske suchen",
    "Run on the CPU": "Auf der CPU rechnen",
    "Use Lite": "Lite verwenden",
    "Key All Deforming Bones": "Alle verformenden Knochen keyen",
    "Draw With Cycles": "Mit Cycles zeichnen",
    "Leave Edit Mode": "Bearbeitungsmodus verlassen",
    "Add AnyRig Preset": "AnyRig-Vorgabe hinzufügen",
    "Show": "Zeigen",
    "Compare": "Vergleichen",
    "Apply Again": "Neu anwenden",
    "Delete": "Löschen",
    "Show Take": "Take zeigen",
    "Compare Take": "Take vergleichen",
    "Apply Take Again": "Take neu anwenden",
    "Delete Take": "Take löschen",
    "Recover Takes": "Takes wiederherstellen",
    "Overlay on Footage": "Über die Aufnahme legen",
    "Remove Overlay": "Überlagerung entfernen",
    "Skeleton Lines": "Skelettlinien",
    "Side-by-Side Movie": "Film nebeneinander",
    "Add to Queue": "Einreihen",
    "Add Videos": "Videos einreihen",
    "Add Videos to Queue": "Videos einreihen",
    "Remove from Queue": "Aus der Reihe nehmen",
    "Move in Queue": "In der Reihe verschieben",
    "Clear Queue": "Reihe leeren",
    "Remove Jobs That Are Done": "Erledigte Aufträge entfernen",
    "Remove All Jobs": "Alle Aufträge entfernen",
    "Do Job Again": "Auftrag wiederholen",
    "Run Queue": "Reihe abarbeiten",
    "Run Queue ({count})": "Reihe abarbeiten ({count})",
    "Stop Queue ({count} waiting)": "Reihe anhalten ({count} warten)",
    "Save Queue as Jobs File": "Reihe als Auftragsdatei sichern",
    "Save Flamenco Job Type": "Flamenco-Auftragstyp sichern",
    "Download Released Weights": "Veröffentlichte Gewichte herunterladen",
    "Download ({size})": "Herunterladen ({size})",
    "Open Preferences": "Einstellungen öffnen",
    "Use My Files": "Eigene Dateien verwenden",
    "Use My Files...": "Eigene Dateien...",
    "Remove": "Entfernen",
    "Remove Released Weights": "Veröffentlichte Gewichte entfernen",
    "Name Joints": "Gelenke benennen",
    "Guess Again": "Neu raten",
    "Remove Table": "Tabelle entfernen",
}

GERMAN_LABELS = {
    "Rig": "Rig",
    "Video": "Video",
    "Footage and Subject": "Aufnahme und Motiv",
    "Reference": "Referenz",
    "Output": "Ausgabe",
    "Model": "Modell",
    "Capture": "Aufnahme",
    "AnyRig Presets": "AnyRig-Vorgaben",
    "Armature": "Skelett",
    "Bones": "Knochen",
    "Deform": "Verformende",
    "Selected": "Ausgewählte",
    "Collection": "Sammlung",
    "Length and Rate": "Länge und Bildrate",
    "Speed Factor": "Geschwindigkeitsfaktor",
    "Mirrored Footage": "Gespiegelte Aufnahme",
    "Frame Rate": "Bildrate",
    "Subject Box": "Motivrahmen",
    "Box": "Rahmen",
    "Matte": "Maske",
    "Trim Start": "Beginn",
    "End": "Ende",
    "Pose": "Pose",
    "Current Pose": "Jetzige Pose",
    "Frame": "Bild",
    "View": "Ansicht",
    "Automatic": "Automatisch",
    "Picture": "Bild des Rigs",
    "Angle": "Winkel",
    "Side": "Seite",
    "Heading": "Blickrichtung",
    "As Reference": "Wie Referenz",
    "As Seen": "Wie gesehen",
    "Lite": "Lite",
    "Released V2": "Veröffentlichtes V2",
    "File": "Datei",
    "Weights": "Gewichte",
    "Device": "Gerät",
    "Preferences": "Einstellungen",
    "CUDA": "CUDA",
    "Metal": "Metal",
    "CPU": "CPU",
    "Start": "Beginn",
    "Current Frame": "Jetziges Bild",
    "Keys As": "Keys als",
    "Action": "Aktion",
    "NLA Strip": "NLA-Streifen",
    "Extend Scene Range": "Bildbereich der Szene erweitern",
    "Top": "Oben",
    "Bottom": "Unten",
    "Front": "Vorne",
    "Front Right": "Vorne rechts",
    "Right": "Rechts",
    "Back Right": "Hinten rechts",
    "Back": "Hinten",
    "Back Left": "Hinten links",
    "Left": "Links",
    "Front Left": "Vorne links",
    "Active": "Aktiv",
    "Side of the last capture": "Seite der letzten Aufnahme",
    "This scene has no armature: add or import one": "Kein Skelett in der Szene: eins anlegen",
    "All bones will do what a take asks": "Alle Knochen folgen der Aufnahme",
    "Use '{name}'": "'{name}' verwenden",
    "{count} selected": "{count} ausgewählt",
    "{count} frames": "{count} Bilder",
    "about {time}": "etwa {time}",
    "(as the last capture)": "(wie die letzte Aufnahme)",
    "(measured on one processor core; more are faster)": "(auf einem Prozessorkern gemessen; mehrere sind schneller)",
    "the first capture will tell how long it takes with this model and device": (
        "die erste Aufnahme zeigt, wie lange es mit diesem Modell und Gerät dauert"
    ),
    "Scene at {own:.4g} fps, footage at {rate:.4g}: keys go onto whole frames of the scene": (
        "Szene mit {own:.4g} Bildern/s, Aufnahme mit {rate:.4g}: Keys liegen auf ganzen Bildern der Szene"
    ),
    "Takes": "Takes",
    "With": "Mit",
    "{count} frames from frame {first}": "{count} Bilder ab Bild {first}",
    "Its action is not in this file": "Ihre Aktion ist nicht in dieser Datei",
    "Check against the Video": "Mit dem Video vergleichen",
    "Queue": "Warteschlange",
    "Released Weights": "Veröffentlichte Gewichte",
    "Licence": "Lizenz",
    "Online access is off: allow it in Preferences > System, or use files of your own.": (
        "Der Netzzugriff ist aus: in Einstellungen > System erlauben, oder eigene Dateien verwenden."
    ),
    "Joint Names": "Gelenknamen",
    "Esc: Cancel": "Esc: Abbrechen",
    "Drag a box around the subject. Esc: Cancel": "Rahmen um das Motiv ziehen. Esc: Abbrechen",
}

GERMAN_TOOLTIPS = {
    "The rig to animate; all selected armatures if empty": "Das Rig, das bewegt wird; leer: alle ausgewählten Skelette",
    "The rig to animate": "Das Rig, das bewegt wird",
    "Which bones get keys": "Welche Knochen Keys bekommen",
    "A video file, or one picture of a numbered sequence": "Eine Videodatei oder ein Bild einer nummerierten Folge",
    "Left and right are swapped in the video, as in a selfie: swap them back": (
        "Links und rechts sind im Video vertauscht, wie bei einem Selfie: zurücktauschen"
    ),
    "Say where the subject is on the first frame, as when there are several": (
        "Angeben, wo das Motiv auf dem ersten Bild ist, etwa wenn es mehrere gibt"
    ),
    "The pose that shows the network what the rig looks like": "Die Pose, die dem Netz zeigt, wie das Rig aussieht",
    "The side from which the video sees the subject in the reference pose": (
        "Die Seite, von der das Video das Motiv in der Referenzpose sieht"
    ),
    "The side from which the video sees the subject": "Die Seite, von der das Video das Motiv sieht",
    "Which way the character faces": "Wohin die Figur blickt",
    "The weights of the network": "Die Gewichte des Netzes",
    "Where the network runs": "Wo das Netz rechnet",
    "Where the first key goes": "Wohin der erste Key kommt",
    "Where the new action goes; the earlier one stays in the file": "Wohin die neue Aktion kommt; die frühere bleibt in der Datei",
    "Let the scene's frame range grow to show the whole take": "Den Bildbereich der Szene erweitern, bis er die ganze Aufnahme zeigt",
    "Stop the running capture, as Esc does; nothing is changed": "Die laufende Aufnahme abbrechen, wie Esc; nichts wird geändert",
    "Show the first frame of the footage and draw a box around the subject on it": (
        "Das erste Bild der Aufnahme zeigen und darauf einen Rahmen um das Motiv ziehen"
    ),
    "Set Device to CPU, which works everywhere": "Gerät auf CPU stellen, was überall geht",
    "Take the trim range away": "Den Ausschnitt aufheben",
    "Take the matte file away": "Die Maske weglassen",
    "Set Model to the weights that come with the add-on": "Das Modell auf die mitgelieferten Gewichte stellen",
    "Set Bones to Deform": "Knochen auf Verformende stellen",
    "Switch to object mode": "In den Objektmodus wechseln",
    "Motion from video": "Bewegung aus Videos",
}

GERMAN = {(BUTTON, key): text for key, text in GERMAN_BUTTONS.items()}
GERMAN |= {(TEXT, key): text for key, text in {**GERMAN_DETAILS, **GERMAN_LABELS, **GERMAN_TOOLTIPS}.items()}


def register() -> None:
    # "de" is what any German locale falls back to
    bpy.app.translations.register(__name__, {"de": GERMAN})


def unregister() -> None:
    bpy.app.translations.unregister(__name__)
