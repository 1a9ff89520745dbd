"""What a training run leaves to look at: a mesh, a motion and a picture of validation motion."""

from pathlib import Path

import torch

from body_models.export.glb import write_glb
from body_models.export.mesh_files import write_obj
from body_models.render.pictures import save_png
from body_models.render.sheets import comparison_sheet
from core.camera import R_YUP_YDOWN
from core.gravity import level_rotation
from core.skeleton import H36M_17
from mesh_head.prediction_files import upright
from mesh_head.predictor import recover_sequence
from mesh_head.training import MeshRecoveryTask

_NUM_ROWS = 4  # at most


@torch.no_grad()
def write_preview(out: Path, task: MeshRecoveryTask, *, renderer: str) -> None:
    """Writes `preview.png`: keypoints, prediction and truth, in rows; and of the first row's prediction `mesh.obj`,
    the frame shown, and `motion.glb`, the stretch around it (in place: nothing says how far away the person is).

    The frames are the middles of stretches spread evenly over the validation motion, not chosen by error.
    """
    evaluation = task.evaluation
    sequences = task.validation_sequences
    stretches = list(evaluation.clips(sequences, task.synthesizer, task.device))
    num_rows = min(_NUM_ROWS, len(stretches))
    shown = [stretches[int((row + 0.5) * len(stretches) / num_rows)] for row in range(num_rows)]
    keypoints_px, confidence, predictions, predicted_m, true_m, titles = [], [], [], [], [], []
    R_level_cam = []
    for sequence, clips in shown:
        middle = clips.keypoints_px.shape[1] // 2
        predicted = recover_sequence(
            task.model,
            clips.keypoints_px[0],
            clips.confidence[0],
            clips.K[0],
            window_frames=task.window_frames,
        )
        keypoints_px.append(clips.keypoints_px[0, middle])
        confidence.append(clips.confidence[0, middle])
        predictions.append(predicted)
        # Where the camera looks down, people would lean in its axes.
        R = level_rotation(-clips.R_cam_world[0, :, 1])
        R_level_cam.append(R)
        predicted_m.append(task.body(predicted).vertices_m[middle] @ R.T)
        true_m.append(task.body(clips.parameters_of(0)).vertices_m[middle] @ R.T)
        titles.append((sequence.label or sequence.name).replace(" | ", "\n"))
    write_glb(
        out / "motion.glb",
        task.body,
        predictions[0],
        fps=shown[0][0].fps,
        R_yup_frame=torch.tensor(R_YUP_YDOWN) @ R_level_cam[0].cpu(),
        name=shown[0][0].name,
    )
    write_obj(out / "mesh.obj", upright(predicted_m[0]), task.body.faces)
    sheet = comparison_sheet(
        torch.stack(keypoints_px).cpu(),
        torch.stack(confidence).cpu(),
        H36M_17,
        torch.stack(predicted_m).cpu(),
        torch.stack(true_m).cpu(),
        task.body.faces.cpu(),
        row_titles=titles,
        title="Validation motion: from 2D keypoints to meshes",
        renderer=renderer,
    )
    save_png(sheet, out / "preview.png")
