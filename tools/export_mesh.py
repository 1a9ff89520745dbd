"""From a motion file to meshes: .obj and .ply for every frame, one animated .glb, or the skeleton as .bvh.

    python tools/export_mesh.py motion=outputs/prediction/motion.npz out=FOLDER
    python tools/export_mesh.py motion=amass.npz body_model=smpl body_model.path=FOLDER formats=[obj]
    python tools/export_mesh.py motion=amass.npz formats=[ply] frames=[0,60,10] out=FOLDER
    python tools/export_mesh.py motion=… origin=ground out=FOLDER       standing on the ground, at the origin

Metres (.bvh: centimetres), y up. The .glb opens in browsers, Blender and game engines. Leaves a contact sheet
beside them. All are named after the motion file, or, if that is called motion.npz, after its folder.
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.export.motion import (
    check_export,
    chosen_formats,
    chosen_frames,
    export_motion,
    frames_for_sheet,
    read_motion_to_export,
    shape_remark,
    write_motion_sheet,
)
from body_models.export.rigged import licence_remark
from body_models.render import require_renderer
from core.progress import ProgressDisplay
from core.run_folder import choose_device


def main(config: dict[str, Any]) -> None:
    require_renderer(config["renderer"])
    display, out = ProgressDisplay(), Path(config["out"])
    formats = chosen_formats(config["formats"])
    motion = read_motion_to_export(config["motion"])
    frames = chosen_frames(motion, config["frames"])
    shown = frames_for_sheet(frames, config["sheet_frames"])
    how = {key: config[key] for key in ("origin", "pose_blend_shapes")} | {"formats": formats}
    check_export(out, motion, **how)
    body = instantiate(config["body_model"]["body"]).to(choose_device(config["device"]))
    remark = shape_remark(motion, body, config["body_model"]["gender"])
    display.say(remark)
    with display.task(f"Writing {len(frames)} frames", len(frames)) as advance:
        written = export_motion(
            out,
            motion,
            body,
            **how,
            frames=frames,
            on_frame_done=advance,
        )
    sheet = out / f"{motion.name}_sheet.png"
    with display.task("Drawing the contact sheet"):
        write_motion_sheet(sheet, motion, body, shown, renderer=config["renderer"])
    display.console.print(
        f"Left in {out}: {', '.join(path.name for path in [*written, sheet])}", highlight=False
    )
    remark = licence_remark(f"{motion.name}.glb", body) if "glb" in formats else None
    display.say(remark)


if __name__ == "__main__":
    run_command(main, "export_mesh", __doc__ or "")
