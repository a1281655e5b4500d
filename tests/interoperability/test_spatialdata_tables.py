"""Tables of a SpatialData: places of what they annotate, in a chosen coordinate system, and results put back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from geopandas import GeoDataFrame
from shapely import Polygon, box
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

import stomics_tools as st

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
MICRONS = 0.5
N = 40


def lattice(n: int = N) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(n), (8, 5)), axis=1) * 10.0 + 3.0


def system(*, x: float = 0.0) -> dict:
    return {
        "global": Identity(),
        "microns": Affine([[MICRONS, 0, x], [0, MICRONS, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")),
    }


def table_of(regions: dict[str, pd.Index], seed: int = 0) -> AnnData:
    """Counts of 12 genes in all instances of some regions, in random order."""
    rng = np.random.default_rng(seed)
    obs = pd.concat([pd.DataFrame({"region": name, "instance": index}) for name, index in regions.items()])
    obs = obs.sample(frac=1, random_state=seed)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    obs["region"] = pd.Categorical(obs["region"], categories=[*regions])
    counts = rng.poisson(8, (len(obs), 12)).astype(np.float32)
    counts[0, 0] = 40
    adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(12)]))
    return TableModel.parse(adata, region=[*regions], region_key="region", instance_key="instance")


@pytest.fixture
def sdata() -> sd.SpatialData:
    """Spots of one section, cells as squares of another, both in pixels; a scale, and a shift, lead to micrometres."""
    names = [f"spot{i}" for i in range(N)]
    spots = ShapesModel.parse(lattice(), geometry=0, radius=2.0, index=pd.Index(names), transformations=system())
    cells = ShapesModel.parse(
        GeoDataFrame(
            {"geometry": [box(x - 1, y - 2, x + 1, y + 2) for x, y in lattice()]}, index=[f"cell{i}" for i in range(N)]
        ),
        transformations=system(x=1000),
    )
    table = table_of({"spots": spots.index, "cells": cells.index})
    return sd.SpatialData(shapes={"spots": spots, "cells": cells}, tables={"table": table})


def expected(table: AnnData, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Places by the number at the end of an instance."""
    number = table.obs["instance"].str.extract(r"(\d+)$")[0].astype(int).to_numpy()
    places = lattice()[number] * scale
    places[(table.obs["region"] == "cells").to_numpy(), 0] += shift
    return places


def test_places_of_circles_and_polygons(sdata):
    adata = st.datasets.from_spatialdata(sdata)
    table = sdata["table"]
    np.testing.assert_allclose(adata.obsm["spatial"], expected(table))
    assert adata.obsm["spatial"].dtype == np.float64
    assert adata.obs["section"].tolist() == table.obs["region"].tolist()
    assert adata.obs["section"].dtype == "category"
    assert adata.obs_names.tolist() == table.obs_names.tolist()
    np.testing.assert_array_equal(adata.X, table.X)
    assert "spatial" not in table.obsm
    assert "section" not in table.obs


def test_the_transformation_to_a_coordinate_system_is_applied(sdata):
    adata = st.datasets.from_spatialdata(
        sdata, "table", coordinate_system="microns", spatial_key="microns", section_key="slide"
    )
    np.testing.assert_allclose(adata.obsm["microns"], expected(sdata["table"], shift=1000, scale=MICRONS))
    assert set(adata.obs["slide"]) == {"spots", "cells"}


def test_points_and_labels():
    points = PointsModel.parse(
        pd.DataFrame(lattice(), columns=["x", "y"]), transformations={"global": Scale([2, 3], ("x", "y"))}
    )
    image = np.zeros((30, 20), dtype=np.int64)
    image[2:5, 10:13] = 7  # rows are y
    image[20:21, 1:3] = 4
    labels = Labels2DModel.parse(image, dims=("y", "x"))
    sdata = sd.SpatialData(
        points={"points": points},
        labels={"labels": labels},
        tables={
            "of_points": table_of({"points": pd.RangeIndex(N)}),
            "of_labels": table_of({"labels": pd.Index([7, 4])}),
        },
    )
    found = st.datasets.from_spatialdata(sdata, "of_points")
    np.testing.assert_allclose(found.obsm["spatial"], lattice()[found.obs["instance"]] * [2, 3])
    found = st.datasets.from_spatialdata(sdata, "of_labels")
    places = {7: [11.5, 3.5], 4: [2.0, 20.5]}
    np.testing.assert_allclose(found.obsm["spatial"], [places[i] for i in found.obs["instance"]])


def test_the_dataset_of_spatialdata():
    sdata = sd.datasets.blobs(length=128)
    adata = st.datasets.from_spatialdata(sdata)
    image = sdata["blobs_labels"].compute()
    places = [np.argwhere(image.to_numpy() == i).mean(0)[::-1] + 0.5 for i in adata.obs["instance_id"]]
    np.testing.assert_allclose(adata.obsm["spatial"], places)


def test_a_table_that_annotates_nothing_needs_places():
    table = AnnData(np.ones((3, 2), dtype=np.float32))
    table.obsm["spatial"] = np.arange(6).reshape(3, 2)
    sdata = sd.SpatialData(tables={"alone": table})
    adata = st.datasets.from_spatialdata(sdata)
    np.testing.assert_array_equal(adata.obsm["spatial"], table.obsm["spatial"])
    assert adata.obs["section"].tolist() == ["alone"] * 3
    with pytest.raises(KeyError, match=r"`spatial_key`: key 'xy' not found .* \['spatial'\]"):
        st.datasets.from_spatialdata(sdata, spatial_key="xy")


def test_results_go_back_and_through_a_file(sdata, tmp_path):
    adata = st.datasets.from_spatialdata(sdata, coordinate_system="microns")
    st.model.GraphST.setup_anndata(adata, batch_key="section")
    model = st.model.GraphST(adata, n_latent=4, n_spatial_neighbors=4)
    model.train(max_epochs=2, **QUIET)
    st.tl.spatial_domains(adata, 2, use_rep="X_graphst", key_added="found")
    graph = adata.obsp["graphst_spatial_connectivities"].tocoo()
    section = adata.obs["section"].to_numpy()
    assert (section[graph.row] == section[graph.col]).all()

    sdata["table"].obsm["X_graphst"] = adata.obsm["X_graphst"]
    sdata.tables["table"] = adata
    sdata.write(tmp_path / "data.zarr")
    read = sd.read_zarr(tmp_path / "data.zarr")
    np.testing.assert_array_equal(read["table"].obsm["X_graphst"], adata.obsm["X_graphst"])
    assert read["table"].obs["found"].tolist() == adata.obs["found"].tolist()
    again = st.datasets.from_spatialdata(read, coordinate_system="microns")
    np.testing.assert_allclose(again.obsm["spatial"], adata.obsm["spatial"])
    np.testing.assert_allclose(model.get_latent_representation(again), adata.obsm["X_graphst"], rtol=1e-5, atol=1e-6)
    spots, found = sd.join_spatialelement_table(sdata=read, spatial_element_names="spots", table_name="table")
    assert set(spots["spots"].index) == set(found.obs["instance"])
    with pytest.raises(ValueError, match="`datasets.from_spatialdata`"):
        st.datasets.read_slice(tmp_path / "data.zarr")


@pytest.mark.parametrize("lacking", [["cells"], ["spots", "cells"]])
def test_places_of_the_table_where_an_element_was_not_read(sdata, lacking):
    places = np.random.default_rng(0).normal(size=(2 * N, 2))
    sdata["table"].obsm["spatial"] = places
    for name in lacking:
        del sdata.shapes[name]
    with pytest.warns(
        UserWarning, match=r"annotates \[.*'cells'.*\], which are not in `sdata`: the places in its `obsm"
    ):
        adata = st.datasets.from_spatialdata(sdata)
    np.testing.assert_array_equal(adata.obsm["spatial"], places)
    assert set(adata.obs["section"]) == {"spots", "cells"}


def test_an_empty_shape_is_named(sdata):
    shapes = sdata["cells"].copy()
    shapes.loc["cell5", "geometry"] = Polygon()
    sdata.shapes["cells"] = shapes
    with pytest.raises(
        ValueError, match=r"1 observations annotate shapes of 'cells' that are empty \(first: \['cell5'\]\)"
    ):
        st.datasets.from_spatialdata(sdata)
    table = sdata["table"]
    sdata.tables["table"] = table[~table.obs["instance"].isin(["cell5"])].copy()
    adata = st.datasets.from_spatialdata(sdata)
    np.testing.assert_allclose(adata.obsm["spatial"], expected(sdata["table"]))


def test_controls_are_left_out(sdata, caplog):
    names = [f"NegControlProbe_{i}" if i < 3 else name for i, name in enumerate(sdata["table"].var_names)]
    sdata["table"].var_names = names
    assert st.datasets.from_spatialdata(sdata).var_names.tolist() == names[3:]
    assert "left out control features: 3 'negative control probe'" in caplog.text
    assert st.datasets.from_spatialdata(sdata, keep_controls=True).var_names.tolist() == names
    assert sdata["table"].n_vars == 12


def test_what_is_wrong_is_said(sdata):
    of = st.datasets.from_spatialdata
    with pytest.raises(TypeError, match="`sdata` must be a SpatialData, found AnnData"):
        of(sdata["table"])
    with pytest.raises(KeyError, match=r"`table_name`: key 'tabel' .* \['table'\]. Did you mean 'table'"):
        of(sdata, "tabel")
    with pytest.raises(KeyError, match=r"`coordinate_system`: key 'um' .*'spots'.* \['global', 'microns'\]|'cells'"):
        of(sdata, coordinate_system="um")
    with pytest.raises(ValueError, match="`section_key`: the table has a column 'instance'"):
        of(sdata, section_key="instance")
    sdata["table"].obs["instance"] = sdata["table"].obs["instance"].replace({"spot3": "spot99", "spot4": "spot98"})
    with pytest.raises(ValueError, match=r"2 observations annotate what is not in 'spots' \(first: \['spot9"):
        of(sdata)
    sdata.tables["second"] = AnnData(np.ones((1, 1), dtype=np.float32))
    with pytest.raises(ValueError, match=r"`table_name`: there are 2 tables, \['table', 'second'\]. Name one"):
        of(sdata)
    del sdata.shapes["cells"], sdata.tables["second"]
    with pytest.raises(KeyError, match=r"`region`: key 'cells' not found in `sdata`. Available keys: \['spots'\]"):
        of(sdata)
    with pytest.raises(ValueError, match="there are 0 tables"):
        of(sd.SpatialData())
